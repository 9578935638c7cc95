# syntax=docker/dockerfile:1
# Two images from one file:
#   docker build --target cpu  -t peftserver:cpu .
#   docker build --target cuda -t peftserver:cuda .

FROM mcr.microsoft.com/dotnet/sdk:10.0 AS build
ENV NUGET_PACKAGES=/packages
WORKDIR /source
COPY global.json Directory.Build.props Directory.Packages.props BannedSymbols.txt .editorconfig ./
COPY src/ src/
COPY deploy/samples/ deploy/samples/

FROM build AS build-cpu
RUN dotnet publish src/PeftServer.Cli -c Release -o /app -p:TorchBackend=cpu \
 && cp -rL /packages/libtorch-cpu-linux-x64/*/runtimes/linux-x64/native /libtorch

# CUDA's libraries come in parts of less than 2 GB each; publishing for one runtime brings them together beside the program.
FROM build AS build-cuda
RUN dotnet publish src/PeftServer.Cli -c Release -o /app -p:TorchBackend=cuda -r linux-x64 --no-self-contained \
 && mkdir /libtorch \
 && find /app -maxdepth 1 -name '*.so*' \
      \( -name 'libtorch*' -o -name 'libc10*' -o -name 'libcu*' -o -name 'libnv*' -o -name 'libgomp*' -o -name 'libcaffe2*' \) \
      -exec mv {} /libtorch/ \;

FROM mcr.microsoft.com/dotnet/aspnet:10.0 AS base
ENV PEFTSERVER_DATA=/data \
    Torch__LibraryPath=/opt/libtorch \
    DOTNET_EnableDiagnostics=0
RUN mkdir /data && chown $APP_UID /data
WORKDIR /app
USER $APP_UID
ENTRYPOINT ["/app/peftserver"]
CMD ["--help"]

FROM base AS cpu
COPY --from=build-cpu /libtorch /opt/libtorch
COPY --from=build-cpu /app /app

FROM base AS cuda
COPY --from=build-cuda /libtorch /opt/libtorch
COPY --from=build-cuda /app /app
