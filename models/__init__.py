"""Pure computation: networks, radiographs, the labeler. Knows no queue, database, environment or clock."""
