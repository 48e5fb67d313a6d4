"""The figures drawn with plotnine, which only the process that draws may import: a function per kind of figure.

Each module draws what the module of its name in the folder above says.
"""
