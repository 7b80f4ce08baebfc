"""Several balancers as one: a process beside the controller shares what this balancer knows with others, through a store."""
