using System.CommandLine;
using System.Text.Json;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training;
using TorchSharp;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver merge</c></summary>
internal static class MergeCommand
{
    private const string Lesson = """
        Examples:
          peftserver merge --model models/tiny-llama --adapter run/adapter --output models/tiny-llama-spam
          peftserver merge --run run --output models/tiny-llama-spam
          peftserver merge --run run --step 200 --output models/tiny-llama-200 --dtype float32

        The folder is a model as transformers saves one: config.json, the tokenizer's files, model.safetensors (several and an index where
        one would be larger than --max-shard-size). AutoModelForCausalLM.from_pretrained reads it; in Models:Root it is a base that is
        served, and that jobs and `train` start from. --run takes what a run wrote: its adapter, else its newest checkpoint, or with --step the
        one after so many steps; a run that trains whole weights comes out whole. A base that was packed for training is merged unpacked.
        """;

    public static Command Create()
    {
        var model = new Option<DirectoryInfo?>("--model") { Description = "Folder of the base, with --adapter.", HelpName = "DIR" };
        var adapter = new Option<DirectoryInfo?>("--adapter") { Description = "Folder of a PEFT adapter.", HelpName = "DIR" };
        var run = new Option<DirectoryInfo?>("--run") { Description = "A run folder, in place of --model and --adapter.", HelpName = "DIR" };
        var step = new Option<int?>("--step") { Description = "The checkpoint after so many steps, with --run.", HelpName = "N" };
        var output = new Option<string>("--output") { Description = "Folder to make; must not exist.", HelpName = "DIR", Required = true };
        var dtype = new Option<string?>("--dtype") { Description = "float32, float16 or bfloat16. Default: the base's.", HelpName = "TYPE" };
        var shard = new Option<long>("--max-shard-size") { Description = "Bytes of a file of weights at most.", HelpName = "BYTES", DefaultValueFactory = _ => ModelFolder.DefaultShardBytes };
        var torchFolder = TrainCommand.TorchOption();
        var command = new DescribedCommand("merge", "Write base and adapter, or a run's checkpoint, as one model.", Lesson) { model, adapter, run, step, output, dtype, shard, torchFolder };
        command.Validators.Add(result =>
        {
            var (isRun, ofAdapter) = (result.GetValue(run) is not null, result.GetValue(model) is not null && result.GetValue(adapter) is not null);
            if (isRun == ofAdapter || (isRun && (result.GetValue(model) is not null || result.GetValue(adapter) is not null)))
            {
                result.AddError("Give either --run, or --model and --adapter.");
            }

            if (!isRun && result.GetValue(step) is not null)
            {
                result.AddError("--step is for --run.");
            }
        });
        command.SetAction((result, _) => TrainCommand.OnOwnThread(() =>
        {
            var folder = Path.GetFullPath(result.GetRequiredValue(output));
            if (Path.Exists(folder))
            {
                throw new CommandException($"{folder} is there already. Name a folder that does not exist.", ExitCode.Usage);
            }

            var (type, shardBytes) = (TypeOf(result.GetValue(dtype)), result.GetValue(shard));
            if (shardBytes <= 0)
            {
                throw new CommandException($"--max-shard-size {shardBytes}: it must be positive.", ExitCode.Usage);
            }

            TrainCommand.LoadTorch(result.GetValue(torchFolder));
            try
            {
                if (result.GetValue(run) is { } runFolder)
                {
                    MergedModel.OfRun(runFolder.FullName, result.GetValue(step), folder, type, shardBytes, Console.WriteLine);
                }
                else
                {
                    MergedModel.OfAdapter(result.GetValue(model)!.FullName, result.GetValue(adapter)!.FullName, folder, type, shardBytes);
                }
            }
            catch (Exception e) when (e is JsonException or TrainingException or NotSupportedException or Engine.Weights.CheckpointException or Engine.Adapters.AdapterException or IOException)
            {
                throw new CommandException(e.Message, ExitCode.Failed, e);
            }

            Console.WriteLine($"The merged model is in {folder}");
            return ExitCode.Done;
        }));
        return command;
    }

    private static torch.ScalarType? TypeOf(string? name) => name is null ? null
        : Devices.DtypeOf(name) ?? throw new CommandException($"--dtype {name}: it is float32, float16 or bfloat16.", ExitCode.Usage);
}
