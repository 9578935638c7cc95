using System.CommandLine;
using System.Text.Json;
using PeftServer.Cli.Processes;
using PeftServer.Engine;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver train</c></summary>
internal static class TrainCommand
{
    private const string Lesson = """
        Examples:
          peftserver train --spec run/spec.json
          peftserver train --spec run/spec.json --device cuda:0
          peftserver train --manifest adapter/training_manifest.json --model models/tiny-llama --training-file train.jsonl --run again

        The worker runs this very command for a job. The folder of spec.json is the run folder: events.jsonl, checkpoints
        and at the end adapter/ (a PEFT checkpoint) appear there. The same command again resumes from the last checkpoint.

        --manifest does a run again from what lies beside its adapter: the same settings on the same model and files, which are
        held to the digests in it. On a CPU the same bytes come out. Where the run started from an adapter, worked with others or graded by
        embeddings, name them too: --starting-adapter, --experts, --embedding-model NAME=DIR.

        "starting_adapter": "DIR" in a spec.json goes on from the adapter in that folder, with its settings: "peft" is left out then.

        "auto" in the place of a number or name lets the run pick: training.num_train_epochs, per_device_train_batch_size, learning_rate,
        lr_scheduler_type, warmup_ratio, optim, bf16, packing, max_length, and LoRA's r and lora_alpha. It says what and why.

        A spec.json:
          {
            "model": "../models/tiny-llama", "model_name": "tiny-llama", "training_file": "train.jsonl",
            "peft": { "peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM" },
            "training": { "num_train_epochs": 2, "per_device_train_batch_size": 16, "learning_rate": 2e-3 }
          }
        """;

    public static Command Create()
    {
        var spec = new Option<FileInfo?>("--spec") { Description = "The run: spec.json in its run folder.", HelpName = "FILE" };
        var again = new ManifestOptions();
        var device = new Option<string?>("--device") { Description = "auto, cpu or cuda:N. Default: what the spec says.", HelpName = "DEVICE" };
        var torch = TorchOption();
        var supervised = new Option<bool>("--supervised") { Description = "Take 'cancel' and 'pause' as lines on standard input; stop when it ends." };
        var command = new DescribedCommand("train", "Run one training run in this process.", Lesson) { spec, again.Manifest, again.Model, again.TrainingFile, again.ValidationFile, again.StartingAdapter, again.Experts, again.EmbeddingModels, again.Run, device, torch, supervised };
        command.Validators.Add(result =>
        {
            if (result.GetValue(spec) is null == result.GetValue(again.Manifest) is null)
            {
                result.AddError("Give either --spec or --manifest.");
            }

            if (result.GetValue(again.Manifest) is not null && (result.GetValue(again.Model) is null || result.GetValue(again.TrainingFile) is null || result.GetValue(again.Run) is null))
            {
                result.AddError("--manifest needs --model, --training-file and --run.");
            }
        });
        command.SetAction((result, stopping) =>
        {
            var control = new TrainerControl();
            using var onSignal = stopping.Register(() => control.Stop(StopRequest.Abandon));
            if (result.GetValue(supervised))
            {
                Posix.StartSession();
                new Thread(() => Obey(control)) { IsBackground = true, Name = "supervisor's pipe" }.Start();
            }

            var run = result.GetValue(spec) ?? again.WriteSpec(result);
            return OnOwnThread(() => Train(run, result.GetValue(device), result.GetValue(torch), control));
        });
        return command;
    }

    /// <summary>Where libtorch is, for the commands that use tensors.</summary>
    public static Option<string?> TorchOption() => new("--torch")
    {
        Description = "Folder of libtorch.so. Default: Torch:LibraryPath, else the one this program was built with.",
        HelpName = "DIR",
    };

    public static void LoadTorch(string? folder)
    {
        var chosen = folder ?? Settings.Read(new Dictionary<string, string?>())["Torch:LibraryPath"];
        TorchLoader.Load(string.IsNullOrEmpty(chosen) ? null : chosen);
    }

    /// <summary>Tensors stay on one thread, never across an await.</summary>
    public static Task<int> OnOwnThread(Func<int> work)
    {
        var done = new TaskCompletionSource<int>(TaskCreationOptions.RunContinuationsAsynchronously);
        var thread = new Thread(() =>
        {
            try
            {
                done.SetResult(work());
            }
            catch (Exception e)
            {
                done.SetException(e);
            }
        })
        {
            Name = "tensors",
        };
        thread.Start();
        return done.Task;
    }

    private static int Train(FileInfo path, string? device, string? torch, TrainerControl control)
    {
        if (!path.Exists)
        {
            throw new CommandException($"--spec {path}: there is no such file.", ExitCode.Usage);
        }

        var folder = path.DirectoryName!;
        using var events = new EventLog(folder, TimeProvider.System, Print);
        try
        {
            var spec = TrainingSpec.Read(path.FullName);
            LoadTorch(torch);
            spec = AutoSettings.Resolve(spec, message => events.Message(message));
            var outcome = new Trainer(device is null ? spec : spec with { Device = device }, folder, events, control, TimeProvider.System).Run();
            return outcome is TrainingOutcome.Succeeded or TrainingOutcome.Paused or TrainingOutcome.Cancelled ? ExitCode.Done : ExitCode.Failed;
        }
        catch (JsonException e)
        {
            return Fail($"{path.Name} cannot be read: {e.Message}");
        }
        catch (Exception e)
        {
            // Whatever it is ends this run; the owner gets the message, the log the rest.
            Console.Error.WriteLine(e);
            return Fail(e.Message.Split('\n')[0]);
        }

        int Fail(string message)
        {
            events.Write(TrainingEventType.Failed, message, TrainingEventLevel.Error);
            return ExitCode.Failed;
        }
    }

    private static void Obey(TrainerControl control)
    {
        while (Console.In.ReadLine() is { } line)
        {
            switch (line.Trim())
            {
                case "cancel":
                    control.Stop(StopRequest.Cancel);
                    break;
                case "pause":
                    control.Stop(StopRequest.Pause);
                    break;
            }
        }

        control.Stop(StopRequest.Abandon);
    }

    private static void Print(TrainingEvent written) =>
        Console.WriteLine(written.Level is TrainingEventLevel.Info ? written.Message + MachineLine.Of(written) : $"{written.Level.ToString().ToLowerInvariant()}: {written.Message}");

    /// <summary>A run that is done again: what it was, and where its model and files are now.</summary>
    private sealed class ManifestOptions
    {
        public Option<FileInfo?> Manifest { get; } = new("--manifest") { Description = "training_manifest.json of a run to do again.", HelpName = "FILE" };

        public Option<DirectoryInfo?> Model { get; } = new("--model") { Description = "Folder of the base model, with --manifest.", HelpName = "DIR" };

        public Option<FileInfo?> TrainingFile { get; } = new("--training-file") { Description = "Rows to train on, with --manifest.", HelpName = "FILE" };

        public Option<FileInfo?> ValidationFile { get; } = new("--validation-file") { Description = "Rows to evaluate on, with --manifest.", HelpName = "FILE" };

        public Option<DirectoryInfo?> StartingAdapter { get; } = new("--starting-adapter") { Description = "Folder of the adapter that the run started from, with --manifest.", HelpName = "DIR" };

        public Option<DirectoryInfo?> Experts { get; } = new("--experts") { Description = "Folder of the adapters that the method works with, with --manifest.", HelpName = "DIR" };

        public Option<string[]> EmbeddingModels { get; } = new("--embedding-model")
        {
            Description = "Folder of a model that graders embed texts by, with --manifest; may be given more than once.",
            HelpName = "NAME=DIR",
            DefaultValueFactory = _ => [],
        };

        public Option<DirectoryInfo?> Run { get; } = new("--run") { Description = "Run folder to make, with --manifest.", HelpName = "DIR" };

        /// <summary>Makes the run folder and its spec.json. Throws where a file or the model is not what it was.</summary>
        public FileInfo WriteSpec(ParseResult result)
        {
            var path = result.GetValue(Manifest)!;
            if (!path.Exists)
            {
                throw new CommandException($"--manifest {path}: there is no such file.", ExitCode.Usage);
            }

            var manifest = TrainingManifest.Read(path.FullName);
            var spec = new TrainingSpec
            {
                Model = result.GetValue(Model)!.FullName,
                ModelName = manifest.ModelName,
                TrainingFile = result.GetValue(TrainingFile)!.FullName,
                ValidationFile = result.GetValue(ValidationFile)?.FullName,
                StartingAdapter = result.GetValue(StartingAdapter)?.FullName,
                Experts = result.GetValue(Experts)?.FullName,
                EmbeddingModels = Folders(result.GetValue(EmbeddingModels)!),
                Peft = manifest.Peft,
                Method = manifest.Method,
                Training = manifest.Training,
            };
            if (manifest.Differences(spec).FirstOrDefault() is { } difference)
            {
                throw new CommandException($"This is not the run of {path.Name}: {difference}.", ExitCode.Usage);
            }

            var folder = result.GetValue(Run)!;
            folder.Create();
            var written = new FileInfo(Path.Combine(folder.FullName, TrainingSpec.FileName));
            File.WriteAllBytes(written.FullName, JsonSerializer.SerializeToUtf8Bytes(spec, PeftJson.Indented));
            return written;
        }

        private static Dictionary<string, string>? Folders(string[] given)
        {
            var folders = new Dictionary<string, string>();
            foreach (var each in given)
            {
                var at = each.IndexOf('=', StringComparison.Ordinal);
                if (at < 1 || !Directory.Exists(each[(at + 1)..]))
                {
                    throw new CommandException($"--embedding-model {each}: it is NAME=DIR, the name of the model in the grader and the folder where it is.", ExitCode.Usage);
                }

                folders[each[..at]] = Path.GetFullPath(each[(at + 1)..]);
            }

            return folders.Count == 0 ? null : folders;
        }
    }
}
