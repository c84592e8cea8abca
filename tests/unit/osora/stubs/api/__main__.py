from stub import run

run("api")
