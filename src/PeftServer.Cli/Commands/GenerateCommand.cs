using System.CommandLine;
using PeftServer.Core;
using PeftServer.Engine.Generation;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Tokenizers.ChatTemplates;
using PeftServer.Engine.Training;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver generate</c></summary>
internal static class GenerateCommand
{
    private const string Lesson = """
        Examples:
          peftserver generate --model models/tiny-llama --prompt "The whale"
          peftserver generate --model models/tiny-llama --adapter run/adapter --system "Classify the e-mail as spam or ham." --message "Win a prize"

        --message is put into the chat template (the adapter's, else the model's); --prompt is continued as it is, or read by an encoder (T5, BART).
        """;

    public static Command Create()
    {
        var model = new Option<DirectoryInfo>("--model") { Description = "Folder of the base model.", HelpName = "DIR", Required = true };
        var adapter = new Option<DirectoryInfo?>("--adapter") { Description = "Folder of a PEFT adapter.", HelpName = "DIR" };
        var prompt = new Option<string?>("--prompt") { Description = "Text to continue.", HelpName = "TEXT" };
        var message = new Option<string?>("--message") { Description = "What the user says.", HelpName = "TEXT" };
        var system = new Option<string?>("--system") { Description = "What the system says before --message.", HelpName = "TEXT" };
        var tokens = new Option<int>("--max-tokens") { Description = "Tokens to generate at most.", HelpName = "N", DefaultValueFactory = _ => 128 };
        var temperature = new Option<double>("--temperature") { Description = "0: always the likeliest token.", HelpName = "T", DefaultValueFactory = _ => 0 };
        var device = new Option<string>("--device") { Description = "auto, cpu or cuda:N.", HelpName = "DEVICE", DefaultValueFactory = _ => "auto" };
        var torch = TrainCommand.TorchOption();
        var command = new DescribedCommand("generate", "Continue a text or answer a message, in this process.", Lesson)
        {
            model, adapter, prompt, message, system, tokens, temperature, device, torch,
        };
        command.Validators.Add(result =>
        {
            if (result.GetValue(prompt) is null == result.GetValue(message) is null)
            {
                result.AddError("Give either --prompt or --message.");
            }
        });
        command.SetAction(async (result, stopping) =>
        {
            TrainCommand.LoadTorch(result.GetValue(torch));
            var (modelFolder, adapterFolder) = (result.GetValue(model)!.FullName, result.GetValue(adapter)?.FullName);
            var tokenizer = Tokenizer.Load(modelFolder);
            using var engine = new GenerationEngine(new GenerationEngineOptions { ModelFolder = modelFolder, Device = result.GetValue(device)! });
            await engine.Loaded.WaitAsync(stopping);
            var request = new GenerationRequest
            {
                Prompt = Prompt(tokenizer, adapterFolder, result.GetValue(prompt), result.GetValue(system), result.GetValue(message)),
                Adapter = adapterFolder is null ? null : new AdapterReference(PublicId.Random(16), adapterFolder),
                Sampling = new SamplingParameters
                {
                    MaxTokens = result.GetValue(tokens),
                    Temperature = result.GetValue(temperature),
                    StopTokens = AdapterCompanions.StopTokens(adapterFolder ?? modelFolder),
                    Forced = ForcedTokens.Read(modelFolder),
                },
            };
            await PrintAsync(engine, request, tokenizer, stopping);
            return ExitCode.Done;
        });
        return command;
    }

    private static int[] Prompt(Tokenizer tokenizer, string? adapterFolder, string? prompt, string? system, string? message)
    {
        if (prompt is not null)
        {
            return tokenizer.Encode(prompt);
        }

        var template = adapterFolder is not null && Path.Combine(adapterFolder, "chat_template.jinja") is var path && File.Exists(path)
            ? ChatTemplate.Parse(File.ReadAllText(path))
            : null;
        var chat = system is null ? Conversation.Of(("user", message!)) : Conversation.Of(("system", system), ("user", message!));
        return new ChatEncoder(tokenizer, template: template).EncodePrompt(chat);
    }

    private static async Task PrintAsync(GenerationEngine engine, GenerationRequest request, Tokenizer tokenizer, CancellationToken stopping)
    {
        var text = tokenizer.CreateStreamingDecoder();
        await foreach (var token in engine.Generate(request, stopping).ReadAllAsync(stopping))
        {
            await Console.Out.WriteAsync(token.Id is { } id ? text.Push(id) : "");
        }

        await Console.Out.WriteLineAsync(text.Flush());
    }
}
