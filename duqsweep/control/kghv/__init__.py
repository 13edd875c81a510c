"""Sampler `kghv`: knowledge gradient in hypervolume, for one success rate and known costs.

A trial's success rate is expensive: each episode is one coin toss. Its other objectives, such as
time and memory, are known once it is benchmarked. So a Gaussian process models the success rate
over all trials, with noise that is known from each trial's number of episodes, and the expected
gain in hypervolume has a closed form. `encoding` turns points into numbers, `surrogate` is the
process, `acquisition` the gain, `chooser` the decision, `search` connects it to a sweep.
"""
