"""Several runs on the same problems: `addgpt eval RUN RUN…`, and two groups of them, `--against`.

runs        finds runs by name, checks that they are asked the same problems, reads stored scores
statistics  the spread of a group; the difference of two, with an interval that allows for the
            sampling of problems and of seeds
tables      both for a terminal, and as JSON
"""
