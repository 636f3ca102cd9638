"""Reads run folders with pandas and draws what is in them; needs neither torch nor a model.

    load        run folders -> tidy tables, with Wilson intervals
    recipe      which runs differ in nothing but their seed
    style       how every figure looks, and how one is saved
    report      a results folder -> one page of html; `addgpt report` writes it
    figures     tables -> figures; `python -m analysis.figures results` draws them all
    mistakes    of one run: where its answers go wrong
    seeds       of one recipe: how far its seeds are apart
    sweeps      what the following have in common
    ablation    what each feature buys: `python -m analysis.ablation results/ablation-add`
    efficiency  formats on few problems: `python -m analysis.efficiency results/sample-efficiency`
    lengths     beyond the trained length: `python -m analysis.lengths results/length`
    traces      scratchpads compared

The notebooks show how to use them from Python.
"""
