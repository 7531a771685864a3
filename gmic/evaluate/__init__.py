"""How well a model does, as in the paper's sections VI and VII: scores in, figures out.

Nothing here runs a model but `duke`, which is given one. Research use only, not for clinical use.

    scores         the table of image scores: reading, writing, averaging over views and models
    roc            AUC, bootstrap intervals over patients, paired comparison
    operating      thresholds for a wanted sensitivity or specificity
    calibration    reliability curve, Brier score, expected calibration error
    segmentation   Dice similarity, pixel average precision
    localisation   whether the most salient cell and the first patch lie on the lesion
    froc           boxes in the style of the open tomosynthesis benchmark (DBTex)
    report         everything as JSON and as one self-contained page
    pictures       patch maps, saliency over slices, patches with attention, a scrolling animation
    duke           the public Duke set: its tables, and the paper's external evaluation
"""
