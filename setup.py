"""Packaging of prefork_lb."""
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent
NATIVE_IS_REQUIRED = os.environ.get("PREFORK_LB_NATIVE") == "required"

# Python that every request passes: mypyc translates it to C (prefork_lb/native/translated.py). Left out are classes that a site
# may derive from, those whose base is in C already, and what the C takes apart by its slots. A class can only derive from a
# translated one when it is translated itself.
TRANSLATED = [f"prefork_lb/{name}.py" for name in (
    "green/accepting", "green/hub", "green/turns",
    "proxy/attempt", "proxy/counting", "proxy/engine", "proxy/filtering", "proxy/inbound", "proxy/outbound", "proxy/patience",
    "proxy/plan", "proxy/reply", "proxy/request", "proxy/response_fields",
    "routing/actions", "routing/conditions", "routing/guards", "routing/limit_keys", "routing/match", "routing/path",
    "routing/template",
    "shared/rate_table", "shared/rate_uses",
    "upstream/idle_connections", "upstream/lease", "upstream/outcomes", "upstream/pool", "upstream/rate_limit",
    "upstream/response_times",
    "wire/field_lines", "wire/fields", "wire/forwarded", "wire/framing", "wire/memo", "wire/parse", "wire/target",
    "worker/acceptor", "worker/bodies", "worker/client", "worker/connection", "worker/exchange", "worker/fair_share",
    "worker/newcomers", "worker/overload", "worker/pacing", "worker/pending", "worker/response_heads", "worker/sending",
    "worker/service",
)]
TRANSLATED_FOLDER = "prefork_lb.translated"


def version() -> str:
    """What prefork_lb/__init__.py says, read without importing it: its dependencies may be missing here."""
    source = HERE / "prefork_lb" / "__init__.py"
    found = re.search(r"""^__version__(?:: str)? = ["']([^"']+)["']""", source.read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit(f'{source}: no line `__version__ = "..."`')
    return found[1]


def has_compiler():
    """Whether there are a C compiler and Python's headers. mypyc takes a quarter of a minute before one would find out."""
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    return shutil.which(compiler.split()[0]) is not None and Path(sysconfig.get_path("include"), "Python.h").exists()


def translated():
    """The extensions that mypyc makes of TRANSLATED. None where it cannot, since the same code runs in Python as well."""
    if os.environ.get("PREFORK_LB_INTERPRETED") or not (has_compiler() or NATIVE_IS_REQUIRED):
        return []
    if {"egg_info", "dist_info", "sdist"}.intersection(sys.argv):  # of four calls of this file pip makes three only to ask
        return []
    os.chdir(HERE)
    try:
        from mypyc.build import mypycify
        # One C file a module: a compiler needs gigabytes of memory for all in one.
        extensions = mypycify(["--ignore-missing-imports", "--follow-imports=silent", f"--cache-dir={HERE / 'build' / 'mypy'}",
                               *TRANSLATED], opt_level="2", debug_level="0", multi_file=True, group_name="prefork_lb")
    except (ImportError, SystemExit) as exc:  # it exits where it understands a source no longer
        if NATIVE_IS_REQUIRED:
            raise
        logging.warning("mypyc cannot translate prefork_lb (%s): the same code will run in Python", exc)
        return []
    for extension in extensions:
        extension.name = f"{TRANSLATED_FOLDER}.{extension.name}"
        extension.optional = not NATIVE_IS_REQUIRED
        # Other compilers have other warnings, and nobody here can mend what mypyc writes.
        extension.extra_compile_args = [word for word in extension.extra_compile_args if word != "-Werror"]
    return extensions


class BuildExtensions(build_ext):
    """Translates modules to C, and notes which sources they were made of."""

    def run(self):
        suffix = sysconfig.get_config_var("EXT_SUFFIX")  # of this interpreter
        folder = Path(HERE if self.editable_mode or self.inplace else self.build_lib, *TRANSLATED_FOLDER.split("."))
        for file in folder.rglob(f"*{suffix}*"):
            file.unlink()
        files = [folder.joinpath(*extension.name.removeprefix(TRANSLATED_FOLDER + ".").split(".")).with_suffix(suffix)
                 for extension in self.extensions if extension.name.startswith(TRANSLATED_FOLDER + ".")]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)  # setuptools makes no folders in the tree
        super().run()
        if files and all(file.exists() for file in files):  # a compiler may have failed
            digests = {source: hashlib.sha256((HERE / source).read_bytes()).hexdigest() for source in TRANSLATED}
            (folder / f"sources{suffix}.json").write_text(json.dumps(digests, indent=1))

    def build_extension(self, ext):
        # setuptools compiles the files of one extension one after another, and one extension has nearly all of them.
        compiled_one_by_one = self.compiler.compile

        def compiled_side_by_side(sources, **settings):
            with ThreadPoolExecutor(os.cpu_count()) as threads:  # each waits for a compiler
                made = threads.map(lambda source: compiled_one_by_one([source], **settings), sources)
                return [file for files in made for file in files]

        self.compiler.compile = compiled_side_by_side
        try:
            super().build_extension(ext)
        finally:
            self.compiler.compile = compiled_one_by_one


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
                 for name in ("claims", "heads", "chunks", "tally", "loop")] + translated(),
    cmdclass={"build_ext": BuildExtensions},
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
