"""Reads run folders with pandas and draws what is in them; needs neither torch nor a model.

    load     run folders -> tidy tables, with Wilson intervals
    style    how every figure looks, and how one is saved
    report   a results folder -> one page of html; `addgpt report` writes it
    figures  tables -> figures; `python -m analysis.figures results` draws them all

The notebook `accuracy_by_length.ipynb` shows how to use them from Python.
"""
