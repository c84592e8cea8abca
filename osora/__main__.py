"""`python -P -m osora`, where the script `osora` is not on the PATH."""

from osora.cli import main

if __name__ == "__main__":
    main()
