# Sourced by the other scripts: makes .venv once and installs this project with the extras named in $1; $2 names
# another folder than .venv.
# A second run is quick: the install is repeated only where pyproject.toml, constraints.txt or the extras changed.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
extras=$1
venv=${2:-.venv}
stamp=$venv/.installed-$extras
wanted=$(cat pyproject.toml constraints.txt | sha256sum)
if [ ! -x "$venv/bin/samdec-export" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    python=$(command -v python3 || command -v python) || { echo "Python 3.10 or newer is needed." >&2; exit 1; }
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed." >&2; exit 1; }
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || exit 1
    echo "Installing into $venv (a minute or two, once) ..." >&2
    "$venv/bin/python" -m pip install --quiet --constraint constraints.txt --editable ".[$extras]" || exit 1
    echo "$wanted" > "$stamp"
fi
export PATH="$PWD/$venv/bin:$PATH"
