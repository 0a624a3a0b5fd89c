"""From a DICOM file to the image that the network sees: syntaxes, limits, grey levels, view.

``reasons`` names every refusal, ``header`` reads what the pipeline files, ``eligibility`` says which
instance is read, ``rendering`` makes the pixels. Nothing here trusts its input; hostile files are
bounded before anything is allocated, and ``workers.sandbox`` runs all of it in a child process.
"""
