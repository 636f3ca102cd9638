"""Reads run folders with pandas and draws what is in them; needs neither torch nor a model.

    load      run folders -> tidy tables, with Wilson intervals: the way to read results
    style     how every figure looks, and how one is saved
    figures   tables of one or several runs -> figures; `addgpt figures results` draws them all
    mistakes  of one run: where its answers go wrong
    seeds     of one recipe: how much its seeds differ
    studies   tables and figures for pages of docs/; `addgpt study` lists them
    report    a results folder -> one page of html; `addgpt report` writes it

The notebooks show how to use them from Python.
"""
