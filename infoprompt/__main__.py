"`python -m infoprompt` is the command `infoprompt`."
from .command.cli import app

app(prog_name="infoprompt")
