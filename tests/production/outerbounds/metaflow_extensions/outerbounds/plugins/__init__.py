ENVIRONMENTS_DESC = [("fast-bakery", ".bakery.Bakery")]
