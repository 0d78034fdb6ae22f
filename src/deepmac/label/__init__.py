"""Boxes in, masks out: ``deepmac label`` gives every box of a data set its mask.

Read in this order: ``read_boxes`` (boxes in any of four formats), ``plan`` (what is to be done,
what is wrong), ``inference`` and ``masks`` (the network's part), ``parts`` (work that survives a
kill), ``merge`` and ``writers`` (the output), ``command``.
"""
