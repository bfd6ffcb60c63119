"""The default folders of state and admin socket."""

from __future__ import annotations

from pathlib import Path

from daemon.config.default_folders import find_default_folders
from tests.support.configuration import ENVIRON, GOOD


def test_default_folders():
    home = {"HOME": "/home/ann"}
    unit = {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "RUNTIME_DIRECTORY": "/run/a"}
    assert find_default_folders(home, uid=0) == (Path("/var/lib/pillowd"), Path("/run/pillowd"))
    assert find_default_folders(home | unit, uid=1000) == (Path("/var/lib/a"), Path("/run/a"))
    state = Path("/home/ann/.local/state/pillowd")
    assert find_default_folders(home, uid=1000) == (state, state)
    xdg = home | {"XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/run/user/1000"}
    assert find_default_folders(xdg, uid=1000) == (Path("/s/pillowd"), Path("/run/user/1000/pillowd"))
    assert find_default_folders({}, uid=1000) == (Path("/var/lib/pillowd"), Path("/run/pillowd"))


def test_systemds_folders_are_defaults_that_the_configuration_overrides(config):
    environ = ENVIRON | {"STATE_DIRECTORY": "/var/lib/x", "RUNTIME_DIRECTORY": "/run/x"}
    loaded = config(GOOD, environ).daemon
    assert (str(loaded.state_dir), loaded.admin.listen) == ("/var/lib/x", "unix:/run/x/admin.sock")
    written = GOOD.replace("30s", "30s\n  state_dir: /data\n  admin: { listen: unix:/data/s }")
    loaded = config(written, environ).daemon
    assert (str(loaded.state_dir), str(loaded.admin.path)) == ("/data", "/data/s")
