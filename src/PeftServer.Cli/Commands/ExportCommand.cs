using System.CommandLine;
using System.IO.Compression;
using PeftServer.Cli.Client;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver export</c></summary>
internal static class ExportCommand
{
    private const string Lesson = """
        Examples:
          peftserver export ft:tiny-llama:peftserver:spam:AbC123 --output spam-adapter
          peftserver export ft:… --output adapter --url https://tuning.example.org --api-key …

        The folder is a Hugging Face PEFT checkpoint: adapter_config.json, adapter_model.safetensors, and the chat template
        it was trained with. peft.PeftModel.from_pretrained(base, "spam-adapter") reads it.
        """;

    public static Command Create()
    {
        var model = new Argument<string>("model") { Description = "Id of the fine-tuned model, as GET /v1/models lists it.", HelpName = "MODEL" };
        var output = new Option<string>("--output") { Description = "Folder to make; must not exist.", HelpName = "DIR", Required = true };
        var url = new Option<Uri>("--url")
        {
            Description = "Address of the server. Default: http://127.0.0.1:8080.",
            HelpName = "URL",
            DefaultValueFactory = _ => new Uri("http://127.0.0.1:8080"),
        };
        var apiKey = new Option<string?>("--api-key") { Description = "Key of the server, where it wants one. Default: $PEFTSERVER_API_KEY.", HelpName = "KEY" };
        var command = new DescribedCommand("export", "Bring a fine-tuned adapter out as a Hugging Face PEFT folder.", Lesson)
        {
            model,
            output,
            url,
            apiKey,
        };
        command.SetAction((result, stopping) => RunAsync(
            result.GetRequiredValue(model),
            Path.GetFullPath(result.GetRequiredValue(output)),
            result.GetRequiredValue(url),
            result.GetValue(apiKey) ?? Environment.GetEnvironmentVariable("PEFTSERVER_API_KEY"),
            stopping));
        return command;
    }

    private static async Task<int> RunAsync(string model, string output, Uri url, string? apiKey, CancellationToken cancellationToken)
    {
        if (Path.Exists(output))
        {
            throw new CommandException($"{output} is there already. Name a folder that does not exist.", ExitCode.Usage);
        }
        Directory.CreateDirectory(Path.GetDirectoryName(output)!);
        var unfinished = $"{output}.{Environment.ProcessId}";
        var archive = unfinished + ".zip";
        try
        {
            using var api = new ApiClient(url, apiKey);
            await using (var file = File.Create(archive))
            {
                await api.DownloadAdapterAsync(model, file, cancellationToken);
            }
            await ZipFile.ExtractToDirectoryAsync(archive, unfinished, cancellationToken);
            Directory.Move(unfinished, output); // whole or not at all
        }
        catch (HttpRequestException error)
        {
            throw new CommandException($"{url} does not answer: {error.Message} Is the server up? Another address: --url URL.", ExitCode.Environment, error);
        }
        finally
        {
            File.Delete(archive);
            if (Directory.Exists(unfinished))
            {
                Directory.Delete(unfinished, recursive: true);
            }
        }
        Console.WriteLine($"{model} is in {output}");
        return ExitCode.Done;
    }
}
