# One image for every process; the command says which.
FROM python:3.12-slim
WORKDIR /app
RUN useradd --system --create-home triggers && mkdir /data && chown triggers /data
COPY requirements/runtime.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/runtime.txt
COPY . .
RUN pip install --no-cache-dir --no-deps .
USER triggers
CMD ["triggers", "--help"]
