from stub import run

run("registry")
