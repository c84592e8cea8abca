"""The console: pages in a browser, made of nothing but what the SDK gets from the API with the signed-in person's key.

A page is a module of `console.pages`; what all of them have is in `console.view` and `console.layout`.
"""
