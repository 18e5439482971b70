// Updates from a repository with the client of go-tuf v2, downloads a target and prints it, as its state's root version and a line of content.
//
// usage: follow METADATA_URL TARGETS_URL ROOT FOLDER TARGET
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"
)

func main() {
	log.SetFlags(0)
	if err := follow(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]); err != nil {
		log.Fatal(err)
	}
}

func follow(metadataURL, targetsURL, root, folder, target string) error {
	trusted, err := os.ReadFile(root)
	if err != nil {
		return err
	}
	cfg, err := config.New(metadataURL, trusted)
	if err != nil {
		return err
	}
	cfg.LocalMetadataDir = filepath.Join(folder, "metadata")
	cfg.LocalTargetsDir = filepath.Join(folder, "targets")
	cfg.RemoteTargetsURL = targetsURL
	up, err := updater.New(cfg)
	if err != nil {
		return err
	}
	if err := up.Refresh(); err != nil {
		return err
	}
	info, err := up.GetTargetInfo(target)
	if err != nil {
		return err
	}
	_, content, err := up.DownloadTarget(info, "", "")
	if err != nil {
		return err
	}
	fmt.Printf("root %d: %s", up.GetTrustedMetadataSet().Root.Signed.Version, content)
	return nil
}
