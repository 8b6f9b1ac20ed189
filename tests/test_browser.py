"""The browser that figures are tried in: it runs scripts, and it reaches nothing outside this machine."""
import pytest


def test_page_runs_scripts(page):
    page.set_content("<p id=p>before</p><script>p.textContent = 'after'</script>")
    assert page.inner_text("#p") == "after"


def test_page_reaches_nothing_outside(page):
    with pytest.raises(Exception, match="ERR_FAILED"):
        page.goto("http://example.invalid/")
