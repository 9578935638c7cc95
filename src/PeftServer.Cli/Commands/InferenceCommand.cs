using System.CommandLine;
using PeftServer.Inference;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver inference</c></summary>
internal static class InferenceCommand
{
    private const string Lesson = """
        Examples:
          peftserver inference --set Inference:Device=cuda:0 --set Inference:InternalKey=…
          peftserver inference --set Inference:Url=http://*:8082 --set Inference:AdvertisedUrl=http://10.0.0.7:8082

        Owns one device, loads the base models that are asked for and answers with any adapter on them. Takes requests
        from the api alone: both know Inference:InternalKey.
        """;

    public static Command Create() =>
        HostCommand.Create("inference", "Answer chats with base models and adapters, for the api.", Lesson, InferenceHost.RunAsync);
}
