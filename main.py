"""Entry point: python main.py COMMAND ... (python main.py --help lists the commands)."""

from prl_keras.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
