#!/usr/bin/env bash
# Install pillowd as a service: `make install` calls this. Run it again to upgrade.
#
#   PREFIX   folder of pillowd and its virtual environment; /opt/pillowd by default
#   DESTDIR  prefix of every path that is written, for packages and trials; empty by default
#   PYTHON   a Python 3.11 or newer; python3 by default
#
# An existing configuration is never changed. Every user may read it, since the service runs as a user of
# its own (DynamicUser) and it holds no secrets; passwords are in credentials/, which only root may read.
set -euo pipefail
umask 022  # the service's user must be able to read it, regardless of root's umask
cd "$(dirname "$0")/.."
prefix="${PREFIX:-/opt/pillowd}"
root="${DESTDIR:-}"
python="${PYTHON:-python3}"
venv="$root$prefix"
etc="$root/etc/pillowd"

[[ "$prefix" = /* && "$prefix" != *[[:space:]]* ]] || { echo "PREFIX must be an absolute path without blanks" >&2; exit 2; }
"$python" -c 'import sys; sys.version_info >= (3, 11) or sys.exit("pillowd needs Python 3.11 or newer; set PYTHON=/path/to/it")'

for folder in "$venv" "$etc"; do
  mkdir -p "$folder" 2>/dev/null && [[ -w "$folder" ]] || { echo "$folder cannot be written to: use sudo, or set DESTDIR" >&2; exit 1; }
done

echo "Installing pillowd into $venv"
[[ -x "$venv/bin/python" ]] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
"$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --force-reinstall .
# Under DESTDIR, the scripts name their present path; they will run from the prefix.
if [[ -n "$root" ]]; then
  grep -rlIF -- "$venv/" "$venv/bin" "$venv/pyvenv.cfg" | xargs -r sed -i "s|$venv/|$prefix/|g"
fi

install -d -m 0755 "$venv/share/man/man1" "$root/etc/systemd/system" "$etc" "$etc/pillows.d"
install -d -m 0700 "$etc/credentials"
(cd "$venv" && ./bin/python3 -m daemon.cli.man_page) > "$venv/share/man/man1/pillowd.1"
sed "s|/opt/pillowd|$prefix|g" etc/pillowd.service > "$root/etc/systemd/system/pillowd.service"
chmod 0644 "$root/etc/systemd/system/pillowd.service"
(cd "$venv" && ./bin/python3 -m pillowd config schema) > "$etc/pillowd.schema.json"
chmod 0644 "$etc/pillowd.schema.json"
install -m 0644 etc/pillowd.yaml "$etc/pillowd.yaml.example"
[[ -e "$etc/pillowd.yaml" ]] || install -m 0644 etc/first.yaml "$etc/pillowd.yaml"

cat <<EOF
Installed. What is left to do:
  1. write your servers into /etc/pillowd/pillowd.yaml (every key: pillowd.yaml.example)
  2. put the password into /etc/pillowd/credentials/couchdb_password (owner root, mode 0600)
  3. ask whether it can work: CREDENTIALS_DIRECTORY=/etc/pillowd/credentials $prefix/bin/pillowd check --connect
  4. systemctl daemon-reload && systemctl enable --now pillowd
As root, all of it; more in docs/how-to/install-as-a-service.md.
EOF
