from stub import run

run("inference")
