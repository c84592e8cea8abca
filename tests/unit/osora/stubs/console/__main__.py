from stub import run

run("console")
