using System.CommandLine;
using System.Globalization;
using PeftServer.Cli.Up;
using PeftServer.Engine.Hub;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver pull</c></summary>
internal static class PullCommand
{
    private const string Lesson = """
        Examples:
          peftserver pull HuggingFaceTB/SmolLM2-135M
          peftserver pull Qwen/Qwen2.5-0.5B-Instruct@main --models /srv/models
          peftserver pull some/gguf-repository --file model-Q4_K_M.gguf

        The files go into the cache of Hugging Face's own tools (HF_HOME, HF_HUB_CACHE), and with --models a link to them
        into a server's Models:Root, where the model is there at once. Safetensors are preferred to .bin files. Whatever
        is here is not fetched again, and a transfer that broke goes on where it broke. HF_ENDPOINT names a mirror,
        HF_TOKEN opens gated models, HF_HUB_OFFLINE=1 forbids the network. No job ever fetches anything.
        """;

    public static Command Create()
    {
        var id = new Argument<string>("model") { Description = "owner/name, or owner/name@revision.", HelpName = "MODEL" };
        var models = new Option<DirectoryInfo?>("--models") { Description = "A server's Models:Root, to link the model into.", HelpName = "DIR" };
        var name = new Option<string?>("--name") { Description = "The model's name there. Default: the name behind the owner.", HelpName = "NAME" };
        var file = new Option<string?>("--file") { Description = "The weights, where a repository holds several.", HelpName = "FILE" };
        var command = new DescribedCommand("pull", "Fetch a model from the Hugging Face Hub.", Lesson) { id, models, name, file };
        command.SetAction(async (result, stopping) =>
        {
            try
            {
                var model = HubModelId.Parse(result.GetRequiredValue(id));
                using var hub = new HubClient(HubOptions.FromEnvironment());
                var folder = await hub.DownloadAsync(model, result.GetValue(file), new ProgressLine(), stopping);
                await Console.Error.WriteLineAsync();
                await Console.Out.WriteLineAsync(result.GetValue(models) is { } root ? ModelLink.Create(folder, root, result.GetValue(name) ?? model.Name) : folder);
                return ExitCode.Done;
            }
            catch (HubException e)
            {
                throw new CommandException(e.Message, ExitCode.Failed, e);
            }
        });
        return command;
    }

    /// <summary>One line that is written again and again, ten times a second at most.</summary>
    private sealed class ProgressLine : IProgress<HubProgress>
    {
        private readonly Lock _lock = new();
        private long _next;

        public void Report(HubProgress value)
        {
            lock (_lock)
            {
                if (Environment.TickCount64 >= _next || value.Bytes >= value.TotalBytes)
                {
                    _next = Environment.TickCount64 + 100;
                    Console.Error.Write(string.Create(CultureInfo.InvariantCulture, $"\r{value.Bytes / 1e6,10:N1} of {value.TotalBytes / 1e6:N1} MB  {value.File}\u001b[K"));
                }
            }
        }
    }
}
