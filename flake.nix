{
  description = "mfm: an operations runner with sandboxed programs, recorded facts and offline replay";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forEachSystem = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});

      # What the build reads, so that a change to the tests or the docs builds nothing anew.
      sources = [
        "LICENSE"
        "README.md"
        "mfm_ops"
        "pyproject.toml"
        "transports"
      ];
      root = toString ./.;
      source = builtins.path {
        name = "mfm-source";
        path = ./.;
        filter =
          path: type:
          let
            relative = nixpkgs.lib.removePrefix "${root}/" (toString path);
            top = builtins.head (nixpkgs.lib.splitString "/" relative);
          in
          builtins.elem top sources && baseNameOf path != "__pycache__";
      };

      mfm =
        pkgs:
        pkgs.python3Packages.buildPythonApplication {
          pname = "mfm-ops";
          version = (builtins.fromTOML (builtins.readFile ./pyproject.toml)).project.version;
          pyproject = true;
          src = source;

          build-system = [ pkgs.python3Packages.hatchling ];
          dependencies = [
            pkgs.python3Packages.anyio
            pkgs.python3Packages.apsw
            pkgs.python3Packages.click
            pkgs.python3Packages.orjson
            pkgs.python3Packages.psutil
            pkgs.python3Packages.pydantic
            pkgs.python3Packages.rfc8785
            pkgs.python3Packages.structlog
          ];
          # nixpkgs links apsw with its own SQLite and gives it that SQLite's version. Whether that
          # one is safe with several writers is mfm's to look at when it runs, not pip's.
          pythonRelaxDeps = [ "apsw" ];

          # The tests run real programs in a sandbox of their own: `make test`.
          doCheck = false;

          makeWrapperArgs = [
            "--prefix"
            "PATH"
            ":"
            (nixpkgs.lib.makeBinPath [ pkgs.bubblewrap ])
          ];

          meta = {
            description = "An operations runner with sandboxed programs, recorded facts and offline replay";
            license = nixpkgs.lib.licenses.mit;
            mainProgram = "mfm";
            platforms = nixpkgs.lib.platforms.linux;
          };
        };
    in
    {
      packages = forEachSystem (pkgs: rec {
        mfm-ops = mfm pkgs;
        default = mfm-ops;
      });

      apps = forEachSystem (
        pkgs:
        let
          app = {
            type = "app";
            program = nixpkgs.lib.getExe self.packages.${pkgs.system}.default;
          };
        in
        {
          mfm = app;
          default = app;
        }
      );

      # Python and the programs that the tests run; `make test` installs the rest from the lock.
      devShells = forEachSystem (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.bubblewrap
            pkgs.busybox
            pkgs.git
            pkgs.gnumake
            pkgs.python3
          ];
        };
      });
    };
}
