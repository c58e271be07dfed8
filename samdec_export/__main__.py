"""`python -m samdec_export` is the same as `samdec-export`."""

from samdec_export.cli.app import main

if __name__ == "__main__":
    main()
