// A webhook receiver: verify, keep, answer; the work comes afterwards. Needs: go mod tidy
package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const bodyBytesMax = 1_048_576

var inbox = cmp.Or(os.Getenv("INBOX"), "inbox")

// Once for each id, whole or not at all. With a database: INSERT … ON CONFLICT DO NOTHING, then commit.
func keep(id string, body []byte) error {
	part, err := os.CreateTemp(inbox, ".")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	_, err = part.Write(body)
	if err = errors.Join(err, part.Close()); err != nil {
		return err
	}
	err = os.Link(part.Name(), filepath.Join(inbox, id))
	if errors.Is(err, fs.ErrExist) {
		return nil // it came before, and our answer was lost
	}
	return err
}

func receive(webhook *standardwebhooks.Webhook) http.HandlerFunc {
	return func(response http.ResponseWriter, request *http.Request) {
		// The bytes as they came: JSON that is parsed and written again has others.
		body, err := io.ReadAll(http.MaxBytesReader(response, request.Body, bodyBytesMax))
		if tooLong := new(http.MaxBytesError); errors.As(err, &tooLong) {
			response.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		if err != nil || webhook.Verify(body, request.Header) != nil {
			response.WriteHeader(http.StatusBadRequest)
			return
		}
		if err := keep(request.Header.Get("webhook-id"), body); err != nil {
			log.Print(err)
			response.WriteHeader(http.StatusInternalServerError) // not kept: it will be sent again
			return
		}
		response.WriteHeader(http.StatusNoContent)
	}
}

func main() {
	webhook, err := standardwebhooks.NewWebhook(os.Getenv("WEBHOOK_SECRET"))
	if err != nil {
		log.Fatal(err)
	}
	if err := os.MkdirAll(inbox, 0o755); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "8000"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	http.HandleFunc("POST /", receive(webhook))
	log.Fatal(http.Serve(listener, nil))
}
