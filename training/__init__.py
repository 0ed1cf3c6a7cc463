"""Makes genserve-shapes, the model that ships inside the package. Run by developers; nothing here is installed.

`python -m training OUT` trains it from nothing, on one GPU or several: scenes (scene.py), their words (captions.py),
their pictures (render.py) and a judge that looks at pixels (checker.py).
"""
