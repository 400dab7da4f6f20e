"""The database servers, behind one port. Engines never import the vault's stores."""
