"""How others are reached: tokens, passwords, certificates and proxies, as the configuration names them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from exporter.config.files import head, parse_path, path_shown, reason
from exporter.config.secrets import Found, Noun, Secret, like_secret, secret_path, secret_variable
from exporter.config.settings import Tls
from exporter.config.values import parse_host
from exporter.core.document import Problems, RefusedError, Table, attempt
from exporter.sources.api import proxies

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_TLS: Final = ("ca_file", "cert_file", "key_file", "server_name")


class Access:
    """Reads tokens, certificates and proxies of a configuration, and notes problems.

    Attributes:
        base: The folder that paths of the file are relative to.
        secret_variables: Names of the environment variables that were named as those of a secret.

    """

    def __init__(self, base: Path, environ: Mapping[str, str], problems: Problems) -> None:
        """Read tokens, certificates and proxies of a configuration.

        Args:
            base: The folder that relative paths start from.
            environ: The environment variables.
            problems: Takes note of what is wrong.

        """
        self.base, self.environ, self.problems = base, environ, problems
        self.secret_variables: set[str] = set()
        self._refused_variables: set[str] = set()

    def secret(self, table: Table, noun: Noun) -> Found:
        """Read the keys of a token or password."""
        of_file, of_variable = f"{noun}_file", f"{noun}_env"
        if of_file in table.entries and of_variable in table.entries:
            table.add(of_variable, f"give {of_file} or {of_variable}, not both")
            return None, None, None
        path = table.parsed(of_file, secret_path(self.base, noun))
        name = table.text(of_variable)
        if name is None:
            return path, None, None
        if not _VARIABLE.fullmatch(name):
            # The text looks like the secret itself, written in place of the variable's name: do not repeat it.
            table.add(of_variable, "is not the name of an environment variable")
            return path, None, None
        self.secret_variables.add(name)
        if name not in self.environ:
            variable = "its environment variable" if like_secret(name) else f"environment variable {name}"
            table.add(of_variable, f"{variable} is not set")
            return path, name, None
        value, where = self.environ[name], table.where(of_variable)
        secret = attempt(secret_variable(name, noun), value, where, self.problems, table.entries[of_variable])
        return path, name, secret

    def tls(self, entry: Table, url: str | None) -> Tls | None:
        """Read the key `tls` of what this URL leads to; None for a URL that is not known."""
        table = entry.mapping("tls", _TLS)
        if table is None:
            return None
        if url is not None and url.startswith("http://"):
            entry.add("tls", "makes no sense with an http:// url")
        for key, partner in (("cert_file", "key_file"), ("key_file", "cert_file")):
            if key in table.entries and partner not in table.entries:
                table.add(key, f"needs {partner} too")
        files = {key: self._pem(table, key) for key in ("ca_file", "cert_file", "key_file")}
        tls = Tls(server_name=table.parsed("server_name", parse_host), **files)
        _loads(table, "ca_file", Tls(tls.ca_file), "holds no certificate in PEM form")
        if tls.cert_file is not None and tls.key_file is not None:
            pair = Tls(None, tls.cert_file, tls.key_file)
            _loads(table, "cert_file", pair, "together with key_file it is no PEM certificate with its unencrypted key")
        return tls

    def proxy(self, entry: Table, url: str | None) -> Secret | None:
        """The proxy of one AgentOS: its `proxy_url`, a URL or `none`, else that of the environment."""
        if "proxy_url" not in entry.entries:
            return None if url is None else self.environment_proxy(url)

        def parse(text: str) -> tuple[Secret | None]:
            if text.lower() == "none":
                return (None,)
            try:
                return (Secret(proxies.proxy_url(text)),)
            except proxies.ProxyRefused as error:
                raise RefusedError(f"{error}; or none") from None

        # None means `none` here, so a refused value needs another mark.
        proxy = entry.parsed("proxy_url", parse)
        return None if proxy is None else proxy[0]

    def environment_proxy(self, url: str) -> Secret | None:
        """The proxy that the environment names for a URL; None if there is none."""
        try:
            proxy = proxies.chosen(url, self.environ)
        except proxies.ProxyRefused as error:
            if error.variable not in self._refused_variables:  # once, however many AgentOS instances it concerns
                self.problems.add(error.variable, str(error))
            self._refused_variables.add(error.variable)
            return None
        return None if proxy is None else Secret(proxy)

    def _pem(self, table: Table, key: str) -> Path | None:
        path = table.parsed(key, parse_path(self.base))
        if path is None:
            return None
        try:
            head(path, 1)
        except (OSError, ValueError) as error:
            table.add(key, f"cannot read {path_shown(path)}: {reason(error)}")
            return None
        return path


def _loads(table: Table, key: str, tls: Tls, message: str) -> None:
    if tls.ca_file is None and tls.cert_file is None:
        return
    try:
        tls.context()
    except (OSError, ValueError):
        table.add(key, message)
