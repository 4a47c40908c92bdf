# Stubbed nixpkgs: just the attributes that flake.nix names. Python, pip, the libraries, bubblewrap,
# Nix and git are the host's; host.nix, which the tests write beside this file, says where they are.
# mfm itself is really built, installed and run. It says nothing of nixpkgs' own packages.
{
  outputs =
    { self }:
    let
      host = import ./host.nix;

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
        removeSuffix =
          suffix: text:
          let
            length = builtins.stringLength text - builtins.stringLength suffix;
          in
          if length >= 0 && builtins.substring length (-1) text == suffix then
            builtins.substring 0 length text
          else
            text;
      };

      packagesFor =
        system:
        let
          run =
            name: attributes: script:
            derivation (
              attributes
              // {
                inherit name system;
                builder = "/bin/sh";
                args = [
                  "-euc"
                  ''
                    mkdir -p $TMPDIR/busybox
                    /bin/busybox --install -s $TMPDIR/busybox
                    export PATH=$TMPDIR/busybox
                    ${script}
                  ''
                ];
              }
            );

          # Programs of the host under a path in the store.
          linked =
            name: programs:
            run name { } ''
              mkdir -p $out/bin
              for program in ${toString programs}; do ln -s $program $out/bin/; done
            ''
            // {
              version = "0-host";
            };
          stub = name: linked name [ ];
        in
        {
          bubblewrap = linked "bubblewrap" host.bubblewrap;
          busybox = stub "busybox";
          git = stub "git";
          gitMinimal = linked "git-minimal" host.git;
          gnumake = stub "gnumake";
          mkShell = { packages }: run "shell" { inherit packages; } "echo $packages > $out";
          nix = linked "nix" host.nix;
          nixfmt-tree = stub "nixfmt-tree";
          python3 = stub "python3";
          runCommand = run;

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
              buildPythonApplication =
                {
                  pname,
                  version,
                  src,
                  postPatch,
                  pythonImportsCheck,
                  makeWrapperArgs,
                  passthru,
                  meta,
                  ...
                }:
                run "${pname}-${version}"
                  {
                    inherit
                      src
                      postPatch
                      pythonImportsCheck
                      makeWrapperArgs
                      ;
                    inherit (host) python;
                    PYTHONDONTWRITEBYTECODE = "1";
                  }
                  ''
                    export HOME=$TMPDIR
                    cp -r $src source
                    chmod -R u+w source
                    cd source
                    eval "$postPatch"
                    $python -m pip --no-input --disable-pip-version-check install --quiet \
                      --no-index --no-deps --no-build-isolation --no-cache-dir --no-compile \
                      --ignore-installed --prefix=$out .
                    cd ..

                    site=$(echo $out/lib/python*/site-packages)
                    # The form that does not ask for a source file's time, which the store levels.
                    $python -m compileall -q --invalidation-mode unchecked-hash $site
                    mv $out/bin/${meta.mainProgram} $out/bin/.wrapped
                    {
                      echo "#!/bin/sh"
                      set -- $makeWrapperArgs
                      while [ $# -gt 0 ]; do
                        case $1 in
                          --prefix) echo "export $2=\"$4$3\$$2\"" ;;
                          --suffix) echo "export $2=\"\$$2$3$4\"" ;;
                        esac
                        shift 4
                      done
                      echo "export PYTHONPATH=$site"
                      echo "exec $python $out/bin/.wrapped \"\$@\""
                    } > $out/bin/${meta.mainProgram}
                    chmod +x $out/bin/${meta.mainProgram}
                    for module in $pythonImportsCheck; do
                      PYTHONPATH=$site $python -c "import $module"
                    done
                  ''
                // passthru
                // {
                  inherit meta version;
                };
            };
        };
    in
    {
      inherit lib;
      legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] packagesFor;
    };
}
