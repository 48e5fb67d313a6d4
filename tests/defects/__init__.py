"""An OpenEnv server that is sound until the variable DEFECT names one of the mistakes real servers make.

What proves that the suite can fail: `--openenv-target local:defects.app:app,env.DEFECT=shared_state`, with `tests` on
PYTHONPATH. Each defect breaks one promise and keeps the others; `planted.DEFECTS` is the list.
"""
