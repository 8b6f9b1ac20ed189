"`python -m infoprompt` is the command `infoprompt`."
from .cli import app

app(prog_name="infoprompt")
