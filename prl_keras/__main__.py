"""`python -m prl_keras COMMAND ...` where the package is installed; in a clone also `python main.py`."""

from prl_keras.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
