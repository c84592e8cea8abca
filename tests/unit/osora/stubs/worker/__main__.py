from stub import run

run("worker")
