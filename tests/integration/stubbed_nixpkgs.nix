# Stubbed nixpkgs: just the attributes that flake.nix names, as derivations that build next to
# nothing. It shows that the flake evaluates and builds; it says nothing of nixpkgs' own packages.
{
  outputs =
    { self }:
    let
      lib = {
        genAttrs =
          names: make:
          builtins.listToAttrs (
            map (name: {
              inherit name;
              value = make name;
            }) names
          );
        getExe = package: "${package}/bin/${package.meta.mainProgram}";
        licenses.mit = { };
        makeBinPath = packages: builtins.concatStringsSep ":" (map (package: "${package}/bin") packages);
        platforms.linux = [ ];
        removePrefix =
          prefix: text:
          let
            length = builtins.stringLength prefix;
          in
          if builtins.substring 0 length text == prefix then builtins.substring length (-1) text else text;
        splitString = separator: text: builtins.filter builtins.isString (builtins.split separator text);
      };

      packagesFor =
        system:
        let
          stub =
            name:
            derivation {
              inherit name system;
              builder = "/bin/sh";
              args = [
                "-c"
                "mkdir -p $out/bin"
              ];
            };
        in
        {
          inherit system;
          bubblewrap = stub "bubblewrap";
          busybox = stub "busybox";
          git = stub "git";
          gnumake = stub "gnumake";
          mkShell = _: stub "shell";
          python3 = stub "python3";
          python3Packages =
            lib.genAttrs [
              "anyio"
              "apsw"
              "click"
              "hatchling"
              "orjson"
              "psutil"
              "pydantic"
              "rfc8785"
              "structlog"
            ] stub
            // {
              # The "program" lists what the source's filter let through.
              buildPythonApplication =
                arguments:
                derivation {
                  name = "${arguments.pname}-${arguments.version}";
                  inherit system;
                  inherit (arguments) src;
                  builder = "/bin/sh";
                  args = [
                    "-c"
                    "mkdir -p $out/bin; cd $src; echo * > $out/bin/${arguments.meta.mainProgram}"
                  ];
                }
                // {
                  inherit (arguments) meta;
                };
            };
        };
    in
    {
      inherit lib;
      legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] packagesFor;
    };
}
