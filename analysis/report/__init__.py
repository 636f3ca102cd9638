"""A results folder as one page of HTML: what was trained, how right it is, and how it goes wrong.

    page     the page as a whole: `build`
    data     what a folder holds, run by run, and which runs go together
    numbers  counts added up: headlines, strata, mistakes, loss on texts
    figures  which drawings a group of runs has
    svg      matplotlib’s drawings in the colours of the page
    examples worked examples, right and wrong

The page needs no network, no other file and no script. Everything that comes from files is escaped.
"""

from analysis.report.page import Page, build

__all__ = ["Page", "build"]
