"""Makes the models that ship inside the package. Run by developers; nothing here is installed.

`python -m training.random_model OUT` makes flux-tiny-random, the toy that ships today. `python -m training OUT`
trains genserve-shapes, a model that draws what captions of its small world ask: scenes (scene.py), their words
(captions.py), their pictures (render.py) and a judge that looks at pixels (checker.py). Its weights are still to
be trained on a GPU.
"""
