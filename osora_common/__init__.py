"""What several of our programs need alike, and nothing else. It stands below all of them and imports none.

Each module imports its own third-party library, so a program loads only those that it uses.
"""
