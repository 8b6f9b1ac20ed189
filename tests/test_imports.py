"""What an import costs: nothing that is not needed yet."""
import subprocess
import sys

import pytest

LATER = "datasets", "sklearn", "scipy", "transformers.models.roberta.modeling_roberta", "jupyterlab", "nbdev", "peft"
STEPS = {"import": "", "predict": """
model = InfoPromptModel(preset="published")
model.predict(["the soup was good ."])
"""}


@pytest.mark.parametrize("step, later", [("import", LATER), ("predict", ("datasets", "sklearn", "nbdev", "peft"))])
def test_what_is_imported_later(step, later):
    code = f"import sys\nfrom infoprompt.core import InfoPromptModel\n{STEPS[step]}"
    code += f"\nprint([name for name in {later!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
