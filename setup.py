"""Packaging of prefork_lb."""
import os
import re
from pathlib import Path

from setuptools import Extension, find_packages, setup

HERE = Path(__file__).resolve().parent
NATIVE_IS_REQUIRED = os.environ.get("PREFORK_LB_NATIVE") == "required"


def version() -> str:
    """What prefork_lb/__init__.py says, read without importing it: its dependencies may be missing here."""
    source = HERE / "prefork_lb" / "__init__.py"
    found = re.search(r"""^__version__(?:: str)? = ["']([^"']+)["']""", source.read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit(f'{source}: no line `__version__ = "..."`')
    return found[1]


setup(
    name="prefork-lb",
    version=version(),
    description="An HTTP load balancer on gunicorn's pre-fork workers, exact across all of them",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    author="the prefork_lb developers",
    license="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: No Input/Output (Daemon)",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: WWW/HTTP :: WSGI :: Server",
        "Topic :: System :: Networking",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["prefork_lb", "prefork_lb.*"]),
    # Where it cannot be compiled the package does without; not in CI.
    ext_modules=[Extension(f"prefork_lb.native.{name}", [f"prefork_lb/native/{name}.c"],
                           depends=[*map(str, Path("prefork_lb/native").glob("*.h"))], optional=not NATIVE_IS_REQUIRED,
                           extra_compile_args=["-O2", *(["-Wall", "-Wextra", "-Werror"] if NATIVE_IS_REQUIRED else [])])
                 for name in ("claims", "heads", "chunks", "tally", "loop")],
    package_data={"prefork_lb": ["py.typed", "admin/static/*"]},
    zip_safe=False,
    python_requires=">=3.11",
    install_requires=[
        "gunicorn>=23",
        "werkzeug>=3.0",
        "requests>=2.31",
        "itsdangerous>=2.1",
        "waitress>=3.0.1",
        "greenlet>=3.1",  # the first with wheels for Python 3.13
        "msgspec>=0.19",  # the first with wheels for Python 3.13
        "click>=8.1",
        "prometheus_client>=0.20",
        "dnspython>=2.6",
        "PyYAML>=6.0.1",  # the first with wheels for Python 3.12
        "rich>=13",
    ],
    extras_require={
        "auth": ["bcrypt>=4", "argon2-cffi>=23.1"],  # passwords of users
        "cluster": ["redis>=5.0.1"],
        "gevent": ["gevent>=24.10"],
        "otel": ["opentelemetry-sdk>=1.27", "opentelemetry-exporter-otlp-proto-http>=1.27"],  # spans
        "re2": ["google-re2>=1.1"],  # regular expressions in routes
        "test": [
            "argon2-cffi>=23.1",
            "bcrypt>=4",
            "coverage[toml]>=7.6",
            "flask>=3.0",
            "gevent>=24.10",
            "google-re2>=1.1",
            "h11>=0.14",
            "hypothesis>=6.100",
            "jsonschema>=4.21",
            "mypy>=1.11",
            "pyjwt>=2.8",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "redis>=5.0.1",
            "ruff>=0.6",
            "selenium>=4.20",
            "types-greenlet>=3.1",
            "types-PyYAML>=6.0",
            "types-requests>=2.31",
            "types-waitress>=3.0",
            "websockets>=13",
        ],
    },
    entry_points={"console_scripts": ["prefork-lb = prefork_lb.cli.main:main"]},
)
