"""`python -m prefork_lb`: the same as the command `prefork-lb`."""
from prefork_lb.cli.main import main

main(prog_name="prefork-lb")
