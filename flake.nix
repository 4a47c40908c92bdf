{
  description = "mfm: an operations runner with sandboxed programs, recorded facts and offline replay";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;

      forEachSystem =
        make:
        lib.genAttrs [
          "x86_64-linux"
          "aarch64-linux"
        ] (system: make system nixpkgs.legacyPackages.${system});

      # So named, it is the very store path of the flake's own source.
      source = builtins.path {
        name = "source";
        path = ./.;
      };

      # What an installed mfm says of itself in each manifest (docs/provenance.md). No time, and no
      # address that this was fetched from: one commit is one build, wherever it came from.
      provenance =
        system: pkgs:
        let
          locked = (builtins.fromJSON (builtins.readFile ./flake.lock)).nodes.nixpkgs.locked;
          dirty = if self ? rev then false else if self ? dirtyRev then true else null;
        in
        {
          inherit dirty;
          git_commit =
            self.rev or (if self ? dirtyRev then lib.removeSuffix "-dirty" self.dirtyRev else null);
          flake_lock_hash = builtins.hashFile "sha256" ./flake.lock;
          flake = {
            url = "path:${builtins.unsafeDiscardStringContext source}";
            rev = self.rev or null;
            nar_hash = self.narHash or null;
            lock =
              if nixpkgs.narHash or null != locked.narHash then
                "overridden"
              else if self ? rev then
                "committed"
              else
                "unknown";
          };
          nix_system = system;
          nix_version = pkgs.nix.version;
        };

      build =
        system: pkgs:
        pkgs.python3Packages.buildPythonApplication {
          pname = "mfm-ops";
          version = (builtins.fromTOML (builtins.readFile ./pyproject.toml)).project.version;
          pyproject = true;
          src = source;

          postPatch = ''
            cp ${builtins.toFile "build.json" (builtins.toJSON (provenance system pkgs))} mfm_ops/_build.json
          '';

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

          # The tests run real programs in a sandbox of their own: `make test`. What runs inside
          # Nix's sandbox is in `checks`.
          doCheck = false;
          pythonImportsCheck = [
            "mfm_ops.app"
            "mfm_ops.cli.main"
            "transports"
          ];

          # The sandbox and Nix are these and no others; git is the operator's own if there is one.
          makeWrapperArgs = [
            "--prefix"
            "PATH"
            ":"
            (lib.makeBinPath [
              pkgs.bubblewrap
              pkgs.nix
            ])
            "--suffix"
            "PATH"
            ":"
            (lib.makeBinPath [ pkgs.gitMinimal ])
          ];

          passthru.provenance = provenance system pkgs;

          meta = {
            description = "An operations runner with sandboxed programs, recorded facts and offline replay";
            license = lib.licenses.mit;
            mainProgram = "mfm";
            platforms = lib.platforms.linux;
          };
        };
    in
    {
      packages = forEachSystem (
        system: pkgs: rec {
          mfm = build system pkgs;
          default = mfm;
        }
      );

      apps = forEachSystem (
        system: _:
        let
          app = {
            type = "app";
            program = lib.getExe self.packages.${system}.mfm;
          };
        in
        {
          mfm = app;
          default = app;
        }
      );

      # What works offline and inside Nix's own sandbox.
      checks = forEachSystem (
        system: pkgs: {
          inherit (self.packages.${system}) mfm;
          reproducible = pkgs.runCommand "mfm-reproducible" { } ''
            export HOME=$TMPDIR
            PATH=${self.packages.${system}.mfm}/bin:$PATH
            mfm --version
            sh ${./examples/ci/reproducible.sh} keystore_list --keystore ${./examples/keystore} | tee $out
          '';
        }
      );

      # Python and the programs that the tests run; `make test` installs the rest from the lock.
      devShells = forEachSystem (
        _: pkgs: {
          default = pkgs.mkShell {
            packages = [
              pkgs.bubblewrap
              pkgs.busybox
              pkgs.git
              pkgs.gnumake
              pkgs.nix
              pkgs.python3
            ];
          };
        }
      );

      formatter = forEachSystem (_: pkgs: pkgs.nixfmt-tree);
    };
}
