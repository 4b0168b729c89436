"""An authority of a test's own, and what it signs."""

import trustme


class Certificates:
    """Files in `folder`: `ca.pem`, and by name the certificate and key of whom it signed."""

    def __init__(self, folder):
        folder.mkdir()
        self.folder = folder
        self.authority = trustme.CA()
        self.ca = str(folder / "ca.pem")
        self.authority.cert_pem.write_to_path(self.ca)
        self.sign("server", "127.0.0.1")
        self.sign("client", "shop.example")

    def sign(self, name, identity, authority=None):
        """Signs one for this name or address, in the place of the one before."""
        signed = (authority or self.authority).issue_cert(identity)
        signed.private_key_pem.write_to_path(self.key(name))
        signed.cert_chain_pems[0].write_to_path(self.certificate(name))

    def certificate(self, name):
        return str(self.folder / f"{name}.pem")

    def key(self, name):
        return str(self.folder / f"{name}.key")

    def door(self, door, clients=True):
        """The settings of a door with these files, which asks for a client's certificate or not."""
        files = {"CERT_FILE": self.certificate("server"), "KEY_FILE": self.key("server")}
        if clients:
            files["CLIENT_CA_FILE"] = self.ca
        return {f"INGEST__{door}__TLS__{key}": file for key, file in files.items()}
