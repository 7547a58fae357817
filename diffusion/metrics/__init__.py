"""How far generated boards are from true ones, without a supervising model.

A metric is a feature of single images and a distance between two sets of features (`registry`). Its raw value means
little: every distance is biased by the number of images. A score therefore carries the mean and spread of the same
distance between independent true draws (`nulls`), and `panel.panel` is the one function that computes them all.
"""
